"""A page that hears the shop's news, and a form that publishes them."""

from __future__ import annotations

from django.contrib.auth.decorators import login_required
from django.contrib.auth.views import LoginView, LogoutView
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import path

from ws4redis_tx.publisher import SELF, RedisPublisher


@login_required
def index(request: HttpRequest) -> HttpResponse:
    if request.method == "POST":
        publisher = RedisPublisher(
            request, facility="news", broadcast=True, users=[SELF], groups=["staff"]
        )
        publisher.publish_message(request.POST["message"])
        return redirect("index")
    return render(request, "shops/index.html")


urlpatterns = [
    path("", index, name="index"),
    path("login/", LoginView.as_view(template_name="shops/login.html"), name="login"),
    path("logout/", LogoutView.as_view(), name="logout"),
]
