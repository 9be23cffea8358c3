"""Thumbnails: `input/<name>`, an image, becomes `thumbnails/<name>`, which fits into a square of `size` pixels.

It runs in a process of its own: scaling is work for a CPU, and decoders of images meet bytes that anybody may have sent.
"""

from __future__ import annotations

import io
from typing import Any

from PIL import Image, ImageOps
from pydantic import BaseModel, Field, field_validator

from batch import Backoff, Context, Permanent, Retry, Task, task
from batch.model.errors import NameRefused, ObjectMissing
from batch.model.names import checked

MAX_PIXELS = 50_000_000
"""Decoded, each takes up to four bytes: 200 MB, which `memory_mb` leaves room for."""
KEPT = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}
"""Formats that a thumbnail keeps; of any other it becomes a PNG."""


class Thumbnail(BaseModel):
    """The fields of a task. What is wrong here is refused at the front door, before it costs anything."""

    name: str
    size: int = Field(default=256, ge=16, le=2048)

    @field_validator("name")
    @classmethod
    def _stays_in_its_folder(cls, name: str) -> str:
        try:
            return checked(name, "name")
        except NameRefused as error:
            raise ValueError(str(error)) from error


@task("thumbnail", isolation="process", timeout_s=60, memory_mb=512, retries=3, backoff=Backoff(first_s=30), payload=Thumbnail)
def thumbnail(task: Task, ctx: Context) -> dict[str, Any]:  # noqa: ARG001 - every handler takes both
    """Raises Retry for an image that is not there yet, Permanent for bytes that are none."""
    fields: Thumbnail = ctx.payload
    try:
        data = ctx.read(f"input/{fields.name}")
    except ObjectMissing as error:
        raise Retry(f"input/{fields.name} is not in the bucket (yet): upload it") from error
    small, kind, (width, height) = scaled(data, fields.size)
    written = ctx.write(f"thumbnails/{fields.name}", small, KEPT[kind])
    return {"object": written.name, "width": width, "height": height, "bytes_in": len(data), "bytes_out": len(small)}


def scaled(data: bytes, size: int) -> tuple[bytes, str, tuple[int, int]]:
    """Pure: the thumbnail, its format (a key of KEPT), and its width and height. Raises Permanent."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Permanent(f"the image has {image.width} × {image.height} pixels, more than {MAX_PIXELS}; send a smaller one")
            kind = image.format if image.format in KEPT else "PNG"
            image.thumbnail((size, size))
            # Cameras write down how they were held, instead of turning the picture.
            upright = ImageOps.exif_transpose(image)
            body = io.BytesIO()
            upright.convert("RGB" if kind == "JPEG" else "RGBA").save(body, kind)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise Permanent(f"not an image that can be read: {error}") from error
    return body.getvalue(), str(kind), upright.size
