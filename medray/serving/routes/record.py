"""POST /v1/record: a file as a chat's `record`, with its abnormal results. No model is asked, and
nothing of it is kept or logged: the audit log has who asked, and when."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Request

from medray.serving.identity.access import CHAT, Caller, may
from medray.serving.record.file import read_record
from medray.serving.schema.record import RecordFile
from medray.serving.service import Served

router = APIRouter()
FILE = {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}


@router.post("/v1/record", openapi_extra={"requestBody": FILE | {"required": True}})
async def read_file(
    request: Request, service: Served, caller: Annotated[Caller, may(CHAT)]
) -> RecordFile:
    """Reads a text file's bytes, UTF-8 or GBK: free text, cut at a record's headings, or JSON."""
    raw = await request.body()
    with await service.admit(caller, "recd", {}) as turn:
        read = await asyncio.to_thread(read_record, raw)
        turn.answered(None, {})
    return read
