from django.test import TestCase


class GuestbookTest(TestCase):
    def test_what_is_written_is_read(self):
        answer = self.client.post("/entries", {"text": "hello"}, content_type="application/json")
        self.assertEqual(answer.status_code, 201)
        entries = self.client.get("/entries").json()["entries"]
        self.assertEqual([entry["text"] for entry in entries], ["hello"])

    def test_the_database_is_checked(self):
        self.assertEqual(self.client.get("/health/ready").status_code, 200)
