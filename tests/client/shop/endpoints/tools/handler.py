class handler:
    def shout(self, text: str) -> str:
        return text.upper()
