import asyncio
import time

from django.http import HttpResponse, StreamingHttpResponse
from django.shortcuts import render

from ws4redis_tx.publisher import RedisPublisher


def page(request):
    return render(request, "page.html")


def view(request):
    return HttpResponse("first view")


def publish(request):
    RedisPublisher(facility="f", broadcast=True).publish_message("hello")
    return HttpResponse("published")


def stream(request):
    def pieces():
        while True:
            yield b"x"
            time.sleep(0.2)

    return StreamingHttpResponse(pieces())


def silent_stream(request):
    def pieces():
        yield b"x"
        time.sleep(600)

    return StreamingHttpResponse(pieces())


def asynchronous_stream(request):
    async def pieces():
        while True:
            yield b"x"
            await asyncio.sleep(0.2)

    return StreamingHttpResponse(pieces())
