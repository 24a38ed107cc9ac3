"""GET /api"""

from __future__ import annotations


def get() -> dict[str, str]:
    return {"service": "{{ project_name }}", "users": "/api/users"}
