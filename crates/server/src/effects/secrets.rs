//! Secrets have no effects: their engine only records.

use async_trait::async_trait;
use shipway_core::secret::{SecretAggregate, SecretInput};
use shipway_engine::{Driver, Work};

pub(crate) struct SecretDriver;

#[async_trait]
impl Driver<SecretAggregate> for SecretDriver {
    async fn carry_out(&self, work: Work<SecretAggregate>) -> SecretInput {
        match work.effect {}
    }
}
