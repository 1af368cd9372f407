"""What the shop promises, asked over HTTP: python3 -m unittest"""

import http.client
import json
import tempfile
import threading
import unittest
from pathlib import Path

import shop


class ShopTest(unittest.TestCase):
    share = 0.0

    def setUp(self):
        self.shop = shop.Shop(("127.0.0.1", 0), "9.9", self.share)
        threading.Thread(target=self.shop.serve_forever, args=(0.01,), daemon=True).start()
        self.addCleanup(self.shop.drain)
        self.client = http.client.HTTPConnection("127.0.0.1", self.shop.server_port, timeout=5)
        self.addCleanup(self.client.close)

    def get(self, path):
        """On one connection, which the shop must keep open."""
        self.client.request("GET", path)
        answer = self.client.getresponse()
        return answer.status, json.loads(answer.read())


class AHealthyShop(ShopTest):
    def test_says_who_it_is(self):
        self.assertEqual(self.get("/"), (200, {"service": "shop", "version": "9.9"}))

    def test_sells_items(self):
        status, body = self.get("/items")
        self.assertEqual((status, body["items"][0]["name"]), (200, "tea"))

    def test_does_not_have_everything(self):
        self.assertEqual(self.get("/cars")[0], 404)

    def test_is_ready_only_with_its_catalogue(self):
        self.assertEqual(self.get("/health/ready"), (200, {"ready": True, "checks": {"catalogue": True}}))
        with tempfile.TemporaryDirectory() as folder:
            self.shop.catalogue = Path(folder) / "gone.json"
            self.assertEqual(self.get("/health/ready"), (503, {"ready": False, "checks": {"catalogue": False}}))
            self.assertEqual(self.get("/health"), (200, {"status": "ok"}))


class AShopWithABug(ShopTest):
    share = 0.05

    def test_fails_one_request_in_twenty_but_no_health_check(self):
        answers = [self.get("/")[0] for _ in range(100)]
        self.assertEqual(answers.count(500), 5)
        self.assertEqual({self.get("/health")[0] for _ in range(40)}, {200})


class Config(unittest.TestCase):
    def test_is_read_with_comments(self):
        self.assertEqual(shop.error_share(shop.read_config("# a\n ERROR_SHARE = 0.25 # b\n\n")), 0.25)
        self.assertEqual(shop.error_share(shop.read_config("")), 0.0)

    def test_is_refused_with_a_reason(self):
        for text in ["ERROR_SHARE=2", "ERROR_SHARE=many", "ERROR_SHARE=nan", "ERROR_SHARE"]:
            with self.assertRaisesRegex(shop.ConfigError, "app.conf"):
                shop.error_share(shop.read_config(text))


if __name__ == "__main__":
    unittest.main()
