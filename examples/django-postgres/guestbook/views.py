import json
import os

from django.conf import settings
from django.db import connection
from django.http import JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_http_methods

from .models import Entry

# The fields that people write.
FIELDS = [field.name for field in Entry._meta.fields if field.editable and not field.primary_key]


@require_GET
def home(request):
    instance = os.environ.get("SHIPWAY_INSTANCE")
    return JsonResponse({"service": "guestbook", "version": settings.VERSION, "instance": instance})


@require_GET
def ready(request):
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return JsonResponse({"checks": {"database": True}})


@csrf_exempt
@require_http_methods(["GET", "POST"])
def entries(request):
    if request.method == "POST":
        fields = json.loads(request.body)
        Entry.objects.create(**{name: fields[name] for name in FIELDS if name in fields})
        return JsonResponse({"entries": Entry.objects.count()}, status=201)
    return JsonResponse({"entries": list(Entry.objects.order_by("id").values(*FIELDS)[:100])})
