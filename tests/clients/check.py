"""`voxgrain serve` and the clients that people use: the packages `openai` and `wyoming`, as real processes' peers.

    python tests/clients/check.py target/release/voxgrain models/tiny

Ends with the first thing that is not as it should be.
"""

import asyncio
import base64
import io
import json
import re
import subprocess
import sys
import tempfile
import time
import wave

import openai
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.error import Error
from wyoming.info import Describe, Info
from wyoming.tts import (
    Synthesize,
    SynthesizeChunk,
    SynthesizeStart,
    SynthesizeStop,
    SynthesizeStopped,
    SynthesizeVoice,
)

PROGRAM, BUNDLE = sys.argv[1:3]
TEXT = "The birch canoe slid on the smooth planks. Glue the sheet to the dark blue background."
TOKEN = "a secret of the tests"


def say(text: str, *more: str) -> bytes:
    """Samples as `say` makes them."""
    command = [PROGRAM, "say", "-q", "--bundle", BUNDLE, "--raw", "-o", "-", *more, text]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    assert done.returncode in (0, 8), done.returncode
    return done.stdout


def expect(what: str, right: bool) -> None:
    assert right, what
    print("ok:", what, flush=True)


def samples(wav: bytes) -> bytes:
    """Of a WAV file whose length was not known when its head was written."""
    with wave.open(io.BytesIO(wav)) as w:
        assert (w.getframerate(), w.getsampwidth(), w.getnchannels()) == (16000, 2, 1)
        return w.readframes((len(wav) - 44) // 2)


def with_openai(address: str, speaker: str) -> None:
    client = openai.OpenAI(base_url=f"http://{address}/v1", api_key=TOKEN, max_retries=0)
    wanted = say(TEXT)
    speech = client.audio.speech
    ask = {"model": "tts-1", "voice": speaker, "input": TEXT}
    expect("openai: wav where nothing is asked for", samples(speech.create(**ask).content) == wanted)
    got = speech.create(**ask, response_format="pcm").content
    expect("openai: pcm", got == wanted)
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        with speech.with_streaming_response.create(**ask, response_format="wav", speed=1.0) as answer:
            answer.stream_to_file(file.name)
        expect("openai: streamed to a file", samples(open(file.name, "rb").read()) == wanted)
    begun, first, parts = time.monotonic(), None, 0
    with speech.with_streaming_response.create(**{**ask, "input": TEXT * 6}, response_format="pcm") as answer:
        for _ in answer.iter_bytes():
            first = first or time.monotonic() - begun
            parts += 1
    whole = time.monotonic() - begun
    expect(f"openai: sound comes as it is made, {first:.3f} of {whole:.3f} s, {parts} parts", first < whole / 2)
    got = speech.create(**ask, response_format="pcm", stream_format="sse", instructions="Be calm.").content
    events = [json.loads(e.removeprefix("data: ")) for e in got.decode().split("\n\n") if e]
    sound = b"".join(base64.b64decode(e["audio"]) for e in events if e["type"] == "speech.audio.delta")
    expect("openai: events", sound == wanted and events[-1]["type"] == "speech.audio.done")
    got = speech.create(**{**ask, "voice": {"id": speaker}}, response_format="pcm", extra_body={"seed": 5}).content
    expect("openai: a seed", got == say(TEXT, "--seed", "5"))
    expect("openai: models", "tts-1" in [m.id for m in client.models.list()])
    for more, kind, words in [
        ({"voice": "nobody"}, openai.BadRequestError, "no speaker"),
        ({"model": "gpt-9"}, openai.NotFoundError, "no model"),
        ({"response_format": "mp3"}, openai.BadRequestError, "wav and pcm"),
        ({"speed": 9}, openai.BadRequestError, "rate"),
        ({"input": "a" * 5000}, openai.APIStatusError, "4096 are the most"),
    ]:
        try:
            speech.create(**{**ask, **more})
        except kind as e:
            expect(f"openai: {more if len(str(more)) < 60 else 'long text'} is refused", words in str(e))
        else:
            raise AssertionError(more)
    try:
        openai.OpenAI(base_url=f"http://{address}/v1", api_key="another", max_retries=0).models.list()
    except openai.AuthenticationError as e:
        expect("openai: another token is refused", "token" in str(e))


async def sound(client: AsyncTcpClient) -> bytes:
    event = await client.read_event()
    assert event is not None and AudioStart.is_type(event.type), event
    got = b""
    while (event := await client.read_event()) is not None:
        if AudioStop.is_type(event.type):
            return got
        chunk = AudioChunk.from_event(event)
        assert (chunk.rate, chunk.width, chunk.channels) == (16000, 2, 1)
        got += chunk.audio
    raise AssertionError("the connection ended in the middle of the sound")


async def with_wyoming(host: str, port: int, speaker: str) -> None:
    wanted = say(TEXT)
    async with AsyncTcpClient(host, port) as client:
        await client.write_event(Describe().event())
        event = await client.read_event()
        assert event is not None
        program = Info.from_event(event).tts[0]
        names = [v.name for v in program.voices]
        expect("wyoming: info", speaker in names and program.supports_synthesize_streaming and program.installed)
        await client.write_event(Synthesize(text=TEXT, voice=SynthesizeVoice(name=speaker)).event())
        expect("wyoming: synthesize", await sound(client) == wanted)
        await client.write_event(SynthesizeStart(voice=SynthesizeVoice(language="en_US")).event())
        for word in re.split(r"(?<= )", TEXT):
            await client.write_event(SynthesizeChunk(text=word).event())
        await client.write_event(Synthesize(text=TEXT).event())
        await client.write_event(SynthesizeStop().event())
        got = await sound(client)
        event = await client.read_event()
        expect("wyoming: a text in parts", got == wanted and event is not None and SynthesizeStopped.is_type(event.type))
    async with AsyncTcpClient(host, port) as client:
        await client.write_event(Synthesize(text=TEXT, voice=SynthesizeVoice(name="nobody")).event())
        event = await client.read_event()
        told = event is not None and Error.is_type(event.type) and "nobody" in Error.from_event(event).text
        expect("wyoming: a voice that is not there", told and await client.read_event() is None)

    async def one(i: int) -> bool:
        text = f"Client number {i}. {TEXT}"
        async with AsyncTcpClient(host, port) as client:
            await client.write_event(Synthesize(text=text).event())
            return await sound(client) == await asyncio.to_thread(say, text)

    expect("wyoming: eight at once", all(await asyncio.gather(*(one(i) for i in range(8)))))


def main() -> None:
    with tempfile.NamedTemporaryFile("w") as token:
        token.write(TOKEN)
        token.flush()
        server = subprocess.Popen(
            [PROGRAM, "serve", "--bundle", BUNDLE, "--listen", "127.0.0.1:0", "--wyoming", "127.0.0.1:0"]
            + ["--token-file", token.name],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert server.stderr
        told = [server.stderr.readline() for _ in range(2)]
    try:
        http, house = (re.search(r"//(\S+)", line)[1] for line in told)  # type: ignore[index]
        inspected = subprocess.run(
            [PROGRAM, "inspect", "--bundle", BUNDLE, "--json"], stdout=subprocess.PIPE, check=True
        )
        speaker = json.loads(inspected.stdout)["speakers"][0]["name"]
        with_openai(http, speaker)
        host, port = house.rsplit(":", 1)
        asyncio.run(with_wyoming(host, int(port), speaker))
        server.terminate()
        expect("it ends when it is asked to", server.wait(20) == 0)
    finally:
        server.kill()


main()
