from __future__ import annotations

from django.conf import settings
from django.db import models


class Export(models.Model):
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="exports")
    title = models.CharField(max_length=80)
    percent = models.PositiveSmallIntegerField(default=0)

    class Meta:
        app_label = "exports"
        ordering = ["-pk"]


class Notification(models.Model):
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="notifications")
    text = models.CharField(max_length=200)
    at = models.DateTimeField(auto_now_add=True)
    read = models.BooleanField(default=False)

    class Meta:
        app_label = "exports"
        ordering = ["-pk"]
