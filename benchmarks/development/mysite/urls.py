from importlib.util import find_spec

from django.urls import include, path

from mysite import views

urlpatterns = [
    path("page", views.page),
    path("view", views.view),
    path("publish", views.publish),
    path("stream", views.stream),
    path("silent", views.silent_stream),
    path("asynchronous", views.asynchronous_stream),
]
if find_spec("django_browser_reload"):
    urlpatterns.append(path("__reload__/", include("django_browser_reload.urls")))
