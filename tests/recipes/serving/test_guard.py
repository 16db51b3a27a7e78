import asyncio

import pytest

pytest.importorskip("starlette", reason="the page needs Gradio, which brings starlette: pip install 'snapvideo[serve]'")

from snapvideo.recipes.serving.guard import Guard
from snapvideo.recipes.serving.server import LOOPBACK


async def answer_yes(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"yes"})


def ask(hosts, method="GET", path="/", **headers):
    """The status and the headers of the answer."""
    sent = []

    async def send(message):
        sent.append(message)

    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "headers": raw, "query_string": b""}
    asyncio.run(Guard(answer_yes, hosts, max_body=100)(scope, None, send))
    return sent[0]["status"], dict(sent[0]["headers"])


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860", "localhost", "[::1]:7860"])
def test_this_machine_is_answered_and_may_load_nothing_from_elsewhere(host):
    status, headers = ask(LOOPBACK, host=host, origin=f"http://{host}")
    policy = headers[b"content-security-policy"].decode()
    assert status == 200 and "default-src 'self'" in policy
    assert "http:" not in policy and "https:" not in policy and "*" not in policy


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},  # a name of somebody else's that leads here
        {"host": "127.0.0.1.evil.example:7860"},
        {"host": "localhost:7860", "origin": "https://evil.example"},
        {"host": "localhost:7860", "origin": "null"},
        {},
    ],
)
def test_pages_of_others_are_refused(headers):
    assert ask(LOOPBACK, **headers)[0] == 403


def test_a_page_that_is_open_is_called_by_any_name():
    assert ask(None, host="machine.example:7860")[0] == 200


@pytest.mark.parametrize("path", ["/gradio_api/file=http://evil.example/x", "/file=https://evil.example/x"])
def test_files_of_other_hosts_are_not_fetched(path):
    assert ask(LOOPBACK, path=path, host="localhost")[0] == 403


@pytest.mark.parametrize(
    ("length", "status"),
    [
        ({"content_length": "100"}, 200),
        ({"content_length": "101"}, 413),
        ({}, 411),
        ({"content_length": "3", "transfer_encoding": "chunked"}, 411),
    ],
)
def test_long_requests_are_refused_before_they_are_read(length, status):
    assert ask(LOOPBACK, "POST", host="localhost", **length)[0] == status


def test_chunks_do_not_pass_by_the_length_of_a_request():
    """In a real server: h11 reads the chunks, and not the three bytes that the request claims."""
    uvicorn = pytest.importorskip("uvicorn", reason="the page needs Gradio, which brings uvicorn")
    read = []

    async def read_all(scope, receive, send):
        more = True
        while more:
            message = await receive()
            read.append(message.get("body", b""))
            more = message.get("more_body", False)
        await answer_yes(scope, receive, send)

    async def ask_in_chunks():
        guard = Guard(read_all, LOOPBACK, max_body=100)
        config = uvicorn.Config(guard, port=0, http="h11", lifespan="off", log_level="critical")
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        lines = "POST / HTTP/1.1", "Host: localhost", "Content-Length: 3", "Transfer-Encoding: chunked", "", ""
        writer.write("\r\n".join(lines).encode() + b"3e8\r\n" + b"x" * 1000 + b"\r\n0\r\n\r\n")
        answer = await reader.readline()
        writer.close()
        server.should_exit = True
        await serving
        return answer

    answer = asyncio.run(ask_in_chunks())
    assert b" 411 " in answer and sum(map(len, read)) == 0
