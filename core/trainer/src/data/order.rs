//! The order in which a run sees its pictures: a pure function of the seed. A pass over the data is every item once,
//! shuffled, cut into batches of one size each; the batch that a size's items do not fill stays smaller, so that none
//! is dropped.

use std::collections::BTreeMap;

use sconce_nn::rng::Stream;

use super::picture::Mirrored;
use super::set::Item;
use crate::recipe::Flip;

/// One item in one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Use {
    /// Index into the set's items.
    pub item: usize,
    /// Left and right swapped this time.
    pub mirrored: Mirrored,
    /// The caption is left out this time.
    pub dropped: Dropped,
}

/// Whether the caption is replaced by the empty one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dropped {
    /// Kept.
    No,
    /// Replaced.
    Yes,
}

/// The batches of a run, one after the other.
pub struct Order<'a> {
    items: &'a [Item],
    /// Indices of the items that train.
    train: Vec<usize>,
    batch: usize,
    caption_dropout: f64,
    seed: u64,
    pass: u64,
    pending: std::vec::IntoIter<Vec<Use>>,
}

impl<'a> Order<'a> {
    /// The order of a run over the items `train`, from its beginning.
    pub fn new(items: &'a [Item], train: Vec<usize>, batch: usize, caption_dropout: f64, seed: u64) -> Self {
        Self { items, train, batch, caption_dropout, seed, pass: 0, pending: Vec::new().into_iter() }
    }

    /// Skips to where `images` have been seen. That must be the end of a batch, as it is in every checkpoint.
    pub fn skip_to(&mut self, images: u64) {
        let pass = self.train.len() as u64;
        self.pass = images / pass;
        let mut seen = self.pass * pass;
        while seen < images {
            seen += self.next().expect("the order never ends").len() as u64;
        }
    }

    /// One pass over the data.
    fn pass(&self) -> Vec<Vec<Use>> {
        let at = |purpose: &str| Stream::new(self.seed, purpose).at(self.pass, 0).uniform(self.train.len());
        let (shuffle, flips, drops) = (at("order"), at("flip"), at("caption dropout"));
        let mut positions: Vec<usize> = (0..self.train.len()).collect();
        positions.sort_by(|&i, &j| shuffle[i].total_cmp(&shuffle[j]));
        let mut open: BTreeMap<(u32, u32), Vec<Use>> = BTreeMap::new();
        let mut batches = Vec::new();
        for p in positions {
            let item = &self.items[self.train[p]];
            let mirrored = item.flip == Flip::Horizontal && flips[p] < 0.5;
            let used = Use {
                item: self.train[p],
                mirrored: if mirrored { Mirrored::Yes } else { Mirrored::No },
                dropped: if drops[p] < self.caption_dropout { Dropped::Yes } else { Dropped::No },
            };
            let bucket = open.entry(item.framing.target).or_default();
            bucket.push(used);
            if bucket.len() == self.batch {
                batches.push(std::mem::take(bucket));
            }
        }
        batches.extend(open.into_values().filter(|b| !b.is_empty()));
        batches
    }
}

impl Iterator for Order<'_> {
    type Item = Vec<Use>;

    /// Never `None` while there is anything to train on.
    fn next(&mut self) -> Option<Vec<Use>> {
        if let Some(batch) = self.pending.next() {
            return Some(batch);
        }
        self.pending = self.pass().into_iter();
        self.pass += 1;
        self.pending.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Framing;

    fn items() -> Vec<Item> {
        let item = |i: usize| Item {
            picture: i,
            framing: Framing::new((64, 64), if i % 3 == 0 { (64, 64) } else { (48, 80) }),
            ground: [255; 3],
            caption: String::new(),
            flip: Flip::Horizontal,
        };
        (0..23).map(item).collect()
    }

    #[test]
    fn a_pass_uses_every_item_once_in_batches_of_one_size() {
        let items = items();
        let order = Order::new(&items, (0..23).collect(), 4, 0.1, 5);
        let pass = order.pass();
        let mut seen: Vec<usize> = pass.iter().flatten().map(|u| u.item).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..23).collect::<Vec<_>>());
        for batch in &pass {
            let size = items[batch[0].item].framing.target;
            assert!(batch.len() <= 4 && batch.iter().all(|u| items[u.item].framing.target == size));
        }
    }

    #[test]
    fn skipping_arrives_where_walking_does() {
        let items = items();
        let all: Vec<usize> = (0..23).collect();
        let mut walked = Order::new(&items, all.clone(), 4, 0.1, 5);
        let mut images = 0;
        for _ in 0..17 {
            images += walked.next().expect("endless").len() as u64;
        }
        let mut skipped = Order::new(&items, all, 4, 0.1, 5);
        skipped.skip_to(images);
        assert_eq!(walked.next(), skipped.next());
    }
}
