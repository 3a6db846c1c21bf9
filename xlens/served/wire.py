"""The client with bounds: what a server does costs a known time and room, and no prompt strays.

`openai` leaves three doors open: its timeout starts anew with every byte that arrives, a body may
have any size (a gzip of 4 MB unpacks to 4 GB) and any number of parts, and a redirect takes prompt
and key wherever it points.
"""

import sys
import zlib
from typing import TYPE_CHECKING, Any

from xlens.errors import DataError, InputError
from xlens.served.model import ServedModel

if TYPE_CHECKING:
    import openai

MAX_BYTES = 16 << 20
"""The largest body that is read, unpacked. An answer of 100,000 tokens has about 1 MB."""
_MOST_PARTS = MAX_BYTES // 32
"""The most lists and objects that are built. No entry of an answer is written in fewer bytes than
32 on average; two million empty lists fit into 16 MB, and take Python seconds and 100 MB."""
_REDIRECTS = 3  # a '/' at the end, and back


class OversizedError(DataError):
    """A body without a sensible end, or of too many parts."""


def connect(served: ServedModel, key: str | None) -> "openai.AsyncOpenAI":
    """The official client for `served`, over a transport of ours."""
    import openai

    return openai.AsyncOpenAI(
        api_key=key or "none",  # the client wants one
        base_url=served.endpoint,
        timeout=served.timeout,
        max_retries=served.max_retries,
        http_client=_transport(served.timeout),
    )


def _transport(seconds: float) -> Any:
    import openai
    from anyio import fail_after

    base = openai.DefaultAsyncHttpxClient
    # httpx or httpx2, as the version of openai has it: it tries again after errors of its own.
    http: Any = sys.modules[base.__mro__[1].__module__.partition(".")[0]]

    class Bounded(base):
        async def send(self, request: Any, *, stream: bool = False, **how: Any) -> Any:
            """One try: sent, answered and read within the time, or given up."""
            try:
                with fail_after(seconds):
                    response, body = await self.read(request, how)
                    for _ in range(_REDIRECTS):
                        onward = response.next_request
                        if onward is None or not _stays(response, onward):
                            break
                        response, body = await self.read(onward, how)
            except TimeoutError as error:
                raise http.ReadTimeout(str(error), request=request) from error
            gone = ("content-encoding", "content-length", "transfer-encoding")
            return type(response)(
                response.status_code,
                headers=[(n, v) for n, v in response.headers.multi_items() if n not in gone],
                content=body,
                request=request,
                extensions=response.extensions,
            )

        async def read(self, request: Any, how: dict[str, Any]) -> tuple[Any, bytes]:
            response = await super().send(request, stream=True, **how)
            try:
                return response, await _body(response)
            finally:
                await response.aclose()

    return Bounded(follow_redirects=False, headers={"Accept-Encoding": "gzip"})


def _stays(response: Any, onward: Any) -> bool:
    """Whether a redirect is the same question to the same server.

    After 301 and 302 a client asks with GET, without the prompt: no answer to it comes from that.
    """

    def origin(url: Any) -> tuple[Any, ...]:
        return url.scheme, url.host, url.port

    return response.status_code in (307, 308) and origin(response.request.url) == origin(onward.url)


async def _body(response: Any) -> bytes:
    """The body, unpacked.

    Raises:
        OversizedError: it goes on beyond `MAX_BYTES`, or has more parts than an answer can have.
        ValueError: packed in a way that was not asked for, or no packing at all.
    """
    packing = response.headers.get("content-encoding", "identity").strip().lower()
    if packing not in ("", "identity", "gzip", "x-gzip", "deflate"):
        raise InputError(f"its body is packed as {packing[:40]!r}, which was not asked for")
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32) if packing not in ("", "identity") else None
    parts: list[bytes] = []
    room = MAX_BYTES
    async for chunk in response.aiter_raw():
        try:
            # No more than there is room for is ever unpacked.
            part = unpacker.decompress(chunk, room + 1) if unpacker else chunk
        except zlib.error as error:
            raise InputError(f"its body is not {packing} ({error})") from None
        if len(part) > room:
            raise OversizedError(f"its body goes on after {MAX_BYTES >> 20} MB")
        parts.append(part)
        room -= len(part)
    body = b"".join(parts)
    if (n := body.count(b"[") + body.count(b"{")) > _MOST_PARTS:
        raise OversizedError(f"its body is {n:,} lists and objects, and no answer")
    return body
