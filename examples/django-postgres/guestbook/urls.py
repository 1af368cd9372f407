from django.urls import path

from . import views

urlpatterns = [
    path("", views.home),
    path("health/ready", views.ready),
    path("entries", views.entries),
]
