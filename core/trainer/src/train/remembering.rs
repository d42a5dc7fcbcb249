//! Text encoders that remember what they were asked: a run draws the same prompts again and again, and large encoders are
//! not kept, nor read again, for that.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use candle_core::Result;
use sconce_nn::Store;

use crate::cond::Cond;
use crate::model::{Conditioner, Geometry, PromptUse};

/// A batch of prompts with what each is for.
type Asked = Vec<(String, PromptUse)>;

/// Encoders that do not train.
pub(super) struct Remembering {
    encoders: Arc<dyn Conditioner>,
    said: Mutex<HashMap<Asked, Cond>>,
}

impl Remembering {
    /// With nothing in mind.
    pub fn new(encoders: Arc<dyn Conditioner>) -> Self {
        Self { encoders, said: Mutex::default() }
    }
}

impl Conditioner for Remembering {
    fn encode(&self, prompts: &[(&str, PromptUse)]) -> Result<Cond> {
        let asked: Asked = prompts.iter().map(|(text, what)| ((*text).to_owned(), *what)).collect();
        if let Some(cond) = self.said.lock().expect("no holder panics").get(&asked) {
            return Ok(cond.clone());
        }
        let cond = self.encoders.encode(prompts)?.map(|t| Ok(t.detach()))?;
        self.said.lock().expect("no holder panics").insert(asked, cond.clone());
        Ok(cond)
    }

    fn geometry(&self, pictures: &[Geometry]) -> Result<Cond> {
        self.encoders.geometry(pictures)
    }

    fn guidance(&self, scale: f64, count: usize) -> Result<Cond> {
        self.encoders.guidance(scale, count)
    }

    fn token_ids(&self, prompt: &str) -> Result<Vec<Vec<Vec<u32>>>> {
        self.encoders.token_ids(prompt)
    }

    fn stores(&self) -> Vec<Arc<Store>> {
        self.encoders.stores()
    }

    fn definition(&self) -> String {
        self.encoders.definition()
    }
}
