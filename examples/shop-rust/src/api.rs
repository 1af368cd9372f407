//! What the shop answers: a status and a JSON document for a method, a path and a body. No sockets in here.

use std::io;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::journal::{Journal, Order};

/// The version of this release.
#[must_use]
pub fn version() -> &'static str {
    include_str!("../VERSION").trim()
}

/// What there is to buy: id, name, price in cents, how many there were at first.
const ITEMS: [(u64, &str, u64, u64); 3] = [
    (1, "tea", 450, 1000),
    (2, "pot", 2900, 20),
    (3, "cup", 700, 200),
];

/// A status code and a document.
pub type Answer = (u16, Value);

/// The shop.
#[derive(Debug)]
pub struct Shop {
    journal: Journal,
}

#[derive(Deserialize)]
struct NewOrder {
    item_id: u64,
    #[serde(default = "one")]
    quantity: u64,
}

const fn one() -> u64 {
    1
}

impl Shop {
    /// A shop that remembers in `journal`.
    #[must_use]
    pub const fn new(journal: Journal) -> Self {
        Self { journal }
    }

    /// Answers one request. What the disk refuses becomes a 500.
    pub fn answer(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        let path = path.split('?').next().unwrap_or(path);
        let answer = match (method, path) {
            ("GET" | "HEAD", _) => self.get(path),
            ("POST", "/orders") => self.order(body),
            _ => Ok(refuse(405, "this cannot be done here")),
        };
        answer.unwrap_or_else(|problem| refuse(500, &problem.to_string()))
    }

    fn get(&self, path: &str) -> io::Result<Answer> {
        Ok(match path {
            "/" => (200, json!({ "service": "shop", "version": version() })),
            "/health" => (200, json!({ "status": "ok" })),
            "/health/ready" => self.ready(),
            "/items" => (200, json!({ "items": self.items()? })),
            _ => match path
                .strip_prefix("/orders/")
                .and_then(|id| id.parse::<u64>().ok())
            {
                Some(id) => match self
                    .journal
                    .orders()?
                    .into_iter()
                    .find(|order| order.id == id)
                {
                    Some(order) => (200, json!(order)),
                    None => refuse(404, "there is no such order"),
                },
                None => refuse(404, "there is no such page"),
            },
        })
    }

    /// Whether it can serve, and which dependency is down if not.
    fn ready(&self) -> Answer {
        let journal = self.journal.orders().is_ok();
        (
            if journal { 200 } else { 503 },
            json!({ "ready": journal, "checks": { "journal": journal } }),
        )
    }

    fn items(&self) -> io::Result<Vec<Value>> {
        let orders = self.journal.orders()?;
        let item = |(id, name, price_cents, stock): (u64, &str, u64, u64)| json!({ "id": id, "name": name, "price_cents": price_cents, "stock": stock - sold(&orders, id) });
        Ok(ITEMS.into_iter().map(item).collect())
    }

    fn order(&self, body: &[u8]) -> io::Result<Answer> {
        let new: NewOrder = match serde_json::from_slice(body) {
            Ok(new) => new,
            Err(problem) => return Ok(refuse(422, &problem.to_string())),
        };
        let order = self.journal.append(|orders| {
            let item = ITEMS.into_iter().find(|item| item.0 == new.item_id);
            let Some((id, _, price_cents, stock)) = item else {
                return Err(refuse(404, "there is no such item"));
            };
            if new.quantity == 0 {
                return Err(refuse(422, "an order has at least one piece"));
            }
            if new.quantity > stock - sold(orders, id) {
                return Err(refuse(409, "there are not that many left"));
            }
            let total_cents = new.quantity * price_cents;
            Ok(Order {
                id: orders.len() as u64 + 1,
                item_id: id,
                quantity: new.quantity,
                total_cents,
            })
        })?;
        Ok(order.map_or_else(|refusal| refusal, |order| (201, json!(order))))
    }
}

fn sold(orders: &[Order], item_id: u64) -> u64 {
    orders
        .iter()
        .filter(|order| order.item_id == item_id)
        .map(|order| order.quantity)
        .sum()
}

fn refuse(status: u16, why: &str) -> Answer {
    (status, json!({ "error": why }))
}
