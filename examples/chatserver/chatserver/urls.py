"""The URLs of the pages. Websockets have a server of their own under ``WEBSOCKET_URL``."""

from __future__ import annotations

from django.contrib.auth.views import LoginView, LogoutView
from django.contrib.staticfiles.urls import staticfiles_urlpatterns
from django.urls import path

from chatserver import views

urlpatterns = [
    path("", views.IndexPage.as_view(), name="index"),
    path("broadcast/", views.BroadcastPage.as_view(), name="broadcast"),
    path("user/", views.UserPage.as_view(), name="user"),
    path("group/", views.GroupPage.as_view(), name="group"),
    path("rooms/", views.RoomsPage.as_view(), name="rooms"),
    path("login/", LoginView.as_view(template_name="chat/login.html"), name="login"),
    path("logout/", LogoutView.as_view(), name="logout"),
    # runserver does this by itself, but other servers do not. Works only while DEBUG is on.
    *staticfiles_urlpatterns(),
]
