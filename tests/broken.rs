//! The laws of the kinds on tensors, on plugins that break them: each is told, and what breaks it is named.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use candle_core::{DType, Device, Result, Tensor, bail};
use sconce_conv_mixer as _;
use sconce_core::Cond;
use sconce_core::adapter::{Adapter, Attached};
use sconce_core::architecture::Architecture;
use sconce_core::model::{Backbone, Recompute};
use sconce_core::noise::{Batch, Drawn, NoiseSource};
use sconce_core::optimizer::{At, Optimizer, OptimizerState, Trained};
use sconce_core::solver::{Denoise, Solver};
use sconce_core::testkit::{self, Law};
use sconce_nn::layers::{LayerAdapter, Shape};
use sconce_nn::rng::Stream;
use sconce_nn::{Adapted, Store};
use sconce_plugins as _;
use sconce_sdk::network::About;
use sconce_sdk::{Choice, Level, Noise};

fn broken(law: Law, needle: &str) {
    let told = law.expect_err(needle);
    assert!(told.contains(needle), "{told}");
}

/// Noise by a counter of its own, or of too few channels.
enum Noisy {
    Counts(AtomicU64),
    Narrow,
}

impl NoiseSource for Noisy {
    fn draw(&self, batch: &Batch) -> Result<Drawn> {
        let eps = match self {
            Self::Counts(count) => {
                let stream = batch.stream("noise").at(count.fetch_add(1, Ordering::Relaxed), 0);
                stream.normal(batch.x0.shape(), &Device::Cpu)?
            }
            Self::Narrow => batch.normal("noise")?.narrow(1, 0, 1)?,
        };
        Ok(Drawn::plain(eps))
    }
}

#[test]
fn noise() {
    broken(testkit::noise(&Noisy::Counts(AtomicU64::new(0))), "a resumed run is not the same run");
    broken(testkit::noise(&Noisy::Narrow), "the input is of");
    let paired = Choice::<dyn NoiseSource>::named("immiscible").unwrap();
    broken(testkit::noise_alone(&*paired), "for other pictures");
}

/// Straight steps that leave the noise out, or only tell of some steps.
enum Steps {
    Noiseless,
    Silent,
}

impl Solver for Steps {
    fn solve(&self, mut x: Tensor, levels: &[Level], model: &mut dyn Denoise) -> Result<Tensor> {
        for (step, pair) in levels.windows(2).enumerate() {
            let (at, to) = (model.denoise(&x, &pair[0])?, &pair[1].noise);
            x = (at.x0 * to.alpha)?;
            match self {
                Self::Noiseless => model.stepped(step, &x)?,
                Self::Silent => x = (x + (at.eps * to.sigma)?)?,
            }
        }
        Ok(x)
    }
}

#[test]
fn solvers() {
    broken(testkit::solver(&Steps::Noiseless), "does not arrive at the data");
    broken(testkit::solver(&Steps::Silent), "of 1 steps it tells []");
}

/// A momentum that no checkpoint has.
struct Forgets;

struct Momentum {
    params: Vec<Trained>,
    means: Vec<Option<Tensor>>,
}

impl Optimizer for Forgets {
    fn lr(&self) -> f64 {
        1e-3
    }

    fn start(&self, params: Vec<Trained>) -> Result<Box<dyn OptimizerState>> {
        Ok(Box::new(Momentum { means: vec![None; params.len()], params }))
    }
}

impl OptimizerState for Momentum {
    fn update(&mut self, index: usize, grad: &Tensor, at: &At) -> Result<()> {
        let grad = grad.to_dtype(DType::F32)?;
        let mean = match &self.means[index] {
            Some(mean) => ((mean * 0.9)? + grad)?,
            None => grad,
        };
        self.params[index].widened(at, |weight| weight.set(&(weight.as_tensor().detach() - (&mean * at.lr)?)?))?;
        self.means[index] = Some(mean);
        Ok(())
    }

    fn save(&self) -> Result<BTreeMap<String, Tensor>> {
        Ok([("began".to_owned(), Tensor::new(1i64, &Device::Cpu)?)].into())
    }

    fn restore(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        if state.is_empty() { bail!("there is no optimizer state") } else { Ok(()) }
    }
}

/// Another one, the wrong way.
struct Uphill(Choice<dyn Optimizer>);

impl Optimizer for Uphill {
    fn lr(&self) -> f64 {
        -self.0.lr()
    }

    fn start(&self, params: Vec<Trained>) -> Result<Box<dyn OptimizerState>> {
        self.0.start(params)
    }
}

#[test]
fn optimizers() {
    broken(testkit::optimizer(&Forgets), "something that it goes on from is not saved");
    broken(testkit::optimizer(&Uphill(Choice::named("lion").unwrap())), "on a quadratic the loss goes from");
}

/// A LoRA that is not merged as it computes, or whose graph is cut.
struct Wrong {
    of: Choice<dyn Adapter>,
    how: How,
}

#[derive(Clone, Copy)]
enum How {
    NotMerged,
    Cut,
    Never,
}

struct On(Arc<dyn LayerAdapter>, How);

impl LayerAdapter for On {
    fn forward(&self, x: &Tensor, layer: &Adapted, base: &dyn Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        let y = self.0.forward(x, layer, base)?;
        match self.1 {
            How::Cut => base(x)? + (y - base(x)?)?.detach(),
            How::Never => y + 0.01,
            How::NotMerged => Ok(y),
        }
    }

    fn merged(&self, weight: &Tensor, bias: Option<&Tensor>) -> Result<(Tensor, Option<Tensor>)> {
        match self.1 {
            How::NotMerged => Ok((weight.clone(), bias.cloned())),
            _ => self.0.merged(weight, bias),
        }
    }
}

impl Adapter for Wrong {
    fn targets(&self) -> &[String] {
        self.of.targets()
    }

    fn tensors(&self) -> Vec<&'static str> {
        self.of.tensors()
    }

    fn elements(&self, place: &str, layer: Shape) -> usize {
        self.of.elements(place, layer)
    }

    fn build(&self, store: &Store, layer: &Adapted, init: &Stream) -> Result<Attached> {
        let attached = self.of.build(store, layer, init)?;
        Ok(Attached { layer: Arc::new(On(attached.layer.clone(), self.how)), ..attached })
    }

    fn restore(
        &self,
        component: &str,
        layer: &Adapted,
        tensors: &BTreeMap<String, Tensor>,
        constants: &BTreeMap<String, f64>,
        strength: f64,
    ) -> Result<Attached> {
        self.of.restore(component, layer, tensors, constants, strength)
    }
}

#[test]
fn adapters() {
    let of = |how| Wrong { of: Choice::named("lora").unwrap(), how };
    broken(testkit::adapter(&of(How::NotMerged)), "merged into the weight it is");
    broken(testkit::adapter(&of(How::Cut)), "`lora_A.weight` gets no gradient");
    broken(testkit::adapter(&of(How::Never)), "a fresh one changes the output");
}

/// A network of another's outputs: half of them cut off the graph, or all less their mean over the batch.
#[derive(Clone, Copy)]
enum Outputs {
    HalfCut,
    Mixed,
    Doubled,
}

struct Made(Choice<dyn Architecture>, Outputs);

struct Network(Arc<dyn Backbone>, Outputs);

impl Architecture for Made {
    fn about(&self) -> About {
        self.0.about()
    }

    fn build(&self, store: Arc<Store>) -> Result<Arc<dyn Backbone>> {
        if let Outputs::Doubled = self.1 {
            self.0.build(store.clone())?;
        }
        Ok(Arc::new(Network(self.0.build(store)?, self.1)))
    }
}

impl Backbone for Network {
    fn forward(&self, x: &Tensor, time: &Tensor, cond: &Cond) -> Result<Tensor> {
        let y = self.0.forward(x, time, cond)?;
        match self.1 {
            Outputs::HalfCut => (&y + y.detach())? * 0.5,
            _ => y.broadcast_sub(&y.mean_keepdim(0)?),
        }
    }

    fn time(&self, t: f64, noise: &Noise) -> f64 {
        self.0.time(t, noise)
    }

    fn store(&self) -> &Arc<Store> {
        self.0.store()
    }

    fn recompute(&self, what: Recompute) {
        self.0.recompute(what);
    }

    fn channels(&self) -> usize {
        self.0.channels()
    }

    fn side_multiple(&self) -> usize {
        self.0.side_multiple()
    }

    fn dtype(&self) -> DType {
        self.0.dtype()
    }
}

#[test]
fn backbones() {
    let table = serde_json::json!({ "type": "conv-mixer", "width": 8, "blocks": 1, "words": 6 });
    let words = Stream::new(4, "words").normal((2, 5, 6), &Device::Cpu).unwrap();
    let cond = Cond::default().with("context", words);
    let of = |outputs| testkit::backbone(&Made(Choice::from_table(&table).unwrap(), outputs), &cond);
    broken(of(Outputs::HalfCut), "the gradient gives");
    broken(of(Outputs::Mixed), "depends on the others of its batch");
    broken(of(Outputs::Doubled), "is asked for twice");
}
