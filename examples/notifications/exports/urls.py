from __future__ import annotations

from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path

from exports import views

urlpatterns = [
    path("", views.index, name="index"),
    path("live/", views.live, name="live"),
    path("start/", views.start, name="start"),
    path("read/", views.read, name="read"),
    path("login/", LoginView.as_view(template_name="exports/login.html"), name="login"),
    path("logout/", LogoutView.as_view(), name="logout"),
]
