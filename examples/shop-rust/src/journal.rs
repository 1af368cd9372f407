//! What the shop remembers: one order a line, in a file that all instances of the shop share. Nothing else is stored;
//! what is left of an item follows from the orders.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// An order as it was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// From 1, without gaps.
    pub id: u64,
    /// What was ordered.
    pub item_id: u64,
    /// Maximum number of rollouts.
    pub quantity: u64,
    /// What it costs together.
    pub total_cents: u64,
}

/// The file of orders.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
}

impl Journal {
    /// The journal in `folder`, which is made if it isn't there.
    pub fn open(folder: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let path = folder.join("orders.jsonl");
        OpenOptions::new().create(true).append(true).open(&path)?;
        Ok(Self { path })
    }

    /// All orders so far, of all instances.
    pub fn orders(&self) -> io::Result<Vec<Order>> {
        let file = File::open(&self.path)?;
        file.lock_shared()?;
        read(&file)
    }

    /// Lets `decide` see all orders and writes the one it makes of them, if any. No other instance writes meanwhile, and
    /// an order that was returned is on the disk.
    pub fn append<E>(
        &self,
        decide: impl FnOnce(&[Order]) -> Result<Order, E>,
    ) -> io::Result<Result<Order, E>> {
        // Without `create`: a deleted journal is an error, not a shop without orders.
        let mut file = OpenOptions::new().read(true).write(true).open(&self.path)?;
        file.lock()?;
        let orders = read(&file)?;
        let order = match decide(&orders) {
            Ok(order) => order,
            Err(refusal) => return Ok(Err(refusal)),
        };
        file.seek(SeekFrom::End(0))?;
        let mut line = serde_json::to_vec(&order)?;
        line.push(b'\n');
        file.write_all(&line)?;
        file.sync_data()?;
        Ok(Ok(order))
    }
}

fn read(file: &File) -> io::Result<Vec<Order>> {
    BufReader::new(file)
        .lines()
        .map(|line| Ok(serde_json::from_str(&line?)?))
        .collect()
}
