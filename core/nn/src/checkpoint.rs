//! Recompute instead of keep: a checkpointed block keeps its inputs only, and runs a second time when its gradient is
//! needed. In candle a custom operation can give gradients to its arguments alone, not to the variables that the block
//! uses inside; those leave sideways, into a sink that [`backward`] holds open and merges. The caller sees one
//! [`GradStore`], and no list of parameters is needed: the variables are found in the recomputed graph.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, TensorId, Var, bail};

use crate::function::{function, function_of_many, trains};
use crate::uses::{self, Use};

thread_local! {
    /// The gradients of variables, from our own operations and from inside checkpointed blocks, while a [`backward`] runs
    /// on this thread.
    static SINK: RefCell<Option<Sink>> = const { RefCell::new(None) };
}

#[derive(Default)]
struct Sink {
    grads: GradStore,
    release: Option<Release>,
}

/// Who takes the gradients of some variables as soon as they are whole.
struct Release {
    places: HashMap<TensorId, usize>,
    take: Box<Take>,
    taken: HashSet<TensorId>,
}

/// Takes the whole gradient of the variable with this number.
pub type Take = dyn FnMut(usize, Tensor) -> Result<()>;

/// All gradients of the scalar `loss`: `loss.backward()`, and the variables inside checkpointed blocks too.
pub fn backward(loss: &Tensor) -> Result<GradStore> {
    Ok(with_sink(loss, Sink::default())?.0)
}

/// [`backward`] that hands the gradient of each variable in `places` to `take`, with its number, as soon as every
/// operation of ours that uses the variable has added its part; `take` may change the variable in place, since nothing
/// reads its value any more. What candle's own operations alone use comes back at the end, as from [`backward`].
///
/// # Errors
/// If a variable is used by operations of both kinds: parts of its gradient would come after it was taken.
pub fn backward_releasing(loss: &Tensor, places: HashMap<TensorId, usize>, take: Box<Take>) -> Result<GradStore> {
    let release = Release { places, take, taken: HashSet::new() };
    let (grads, release) = with_sink(loss, Sink { release: Some(release), ..Sink::default() })?;
    match release.is_some_and(|r| grads.get_ids().any(|id| r.taken.contains(id))) {
        true => bail!(
            "a weight is used both by an operation of sconce_nn and by one of candle's own, so that its gradient comes \
             in parts, and cannot be released early: keep all gradients (train.gradients = \"all\")"
        ),
        false => Ok(grads),
    }
}

fn with_sink(loss: &Tensor, sink: Sink) -> Result<(GradStore, Option<Release>)> {
    struct Open(Option<Sink>);
    impl Drop for Open {
        fn drop(&mut self) {
            SINK.set(self.0.take());
        }
    }
    let outer = Open(SINK.replace(Some(sink)));
    let mut grads = loss.backward()?;
    let inside = SINK.take().expect("blocks add to the sink and leave it in place");
    drop(outer);
    grads.extend(inside.grads)?;
    Ok((grads, inside.release))
}

/// Adds to the gradient of `variable` in the sink, or gives it back where none is open.
pub(crate) fn sink(variable: &Tensor, grad: Tensor) -> Result<Option<Tensor>> {
    SINK.with_borrow_mut(|sink| {
        let Some(sink) = sink else { return Ok(Some(grad)) };
        let sum = match sink.grads.remove(variable) {
            Some(sum) => (sum + grad)?,
            None => grad,
        };
        if let Some(release) = &mut sink.release
            && let Some(&place) = release.places.get(&variable.id())
            && uses::left(variable.id()) == 0
        {
            release.taken.insert(variable.id());
            (release.take)(place, sum.detach())?;
            return Ok(None);
        }
        sink.grads.insert(variable, sum.detach());
        Ok(None)
    })
}

/// Runs `f`, whose large stack lets graphs of any real model be walked and freed: candle does both by recursion, a few
/// frames an operation.
pub fn on_big_stack<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    const BYTES: usize = 512 << 20; // reserved, not used: the system gives pages as they are touched
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("sconce".into()).stack_size(BYTES).spawn_scoped(scope, f);
        let thread = thread.expect("the system can start a thread");
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

type Block = dyn Fn(&[Tensor]) -> Result<Tensor> + Send + Sync;

/// `f(inputs)`, of which the graph keeps `inputs` only. `f` must give the same result when it runs again: whatever is
/// random in it comes from outside. It may use variables, and contain checkpointed blocks itself. Where a block is part
/// of the loss, take the gradients with [`backward`].
pub fn checkpoint<F>(inputs: &[&Tensor], f: F) -> Result<Tensor>
where
    F: Fn(&[Tensor]) -> Result<Tensor> + Send + Sync + 'static,
{
    let kept: Vec<Tensor> = inputs.iter().map(|x| x.detach()).collect();
    let tracked: Vec<usize> = (0..inputs.len()).filter(|&i| trains(inputs[i])).collect();
    let (out, used) = uses::recorded(|| f(&kept));
    let out = out?;
    if tracked.is_empty() && !trains(&out) {
        return Ok(out);
    }
    let out = out.detach(); // the graph that `f` built goes here
    // A variable that stands for those inside the block where no input trains; it gets no gradient.
    let token = Var::zeros((), out.dtype(), out.device())?;
    let mut leaves: Vec<&Tensor> = tracked.iter().map(|&i| inputs[i]).collect();
    if leaves.is_empty() {
        leaves.push(&token);
    }
    // Until the block runs again, its uses of variables count as if its operations were there.
    let used = Mutex::new(used);
    function_of_many("checkpoint", &leaves, out, move |dy| block_grads(&f, &kept, &tracked, dy, &used))
}

/// Runs the block again with a graph. Returns the gradients of the tracked inputs; those of variables go to the sink.
fn block_grads(
    f: &Block,
    kept: &[Tensor],
    tracked: &[usize],
    dy: &Tensor,
    used: &Mutex<Vec<Use>>,
) -> Result<Vec<Option<Tensor>>> {
    if SINK.with_borrow(Option::is_none) {
        bail!("a checkpointed block is part of this loss: take its gradients with sconce_nn::checkpoint::backward");
    }
    let mut inputs = kept.to_vec();
    for &i in tracked {
        inputs[i] = Var::from_tensor(&kept[i])?.into_inner();
    }
    let out = f(&inputs)?;
    used.lock().expect("no holder of this lock panics").clear();
    let dy = dy.clone();
    let root = Tensor::zeros((), out.dtype(), out.device())?;
    let root = function("checkpoint_root", &[&out], root, move |_| Ok(vec![Some(dy.clone())]))?;
    let mut grads = root.backward()?;
    let ours = tracked.iter().map(|&i| {
        let aside = SINK.with_borrow_mut(|sink| sink.as_mut().expect("checked above").grads.remove(&inputs[i]));
        match (grads.remove(&inputs[i]), aside) {
            (Some(a), Some(b)) => (a + b).map(Some),
            (None, None) => kept[i].zeros_like().map(Some), // unused, but candle insists
            (grad, aside) => Ok(grad.or(aside)),
        }
    });
    let ours: Vec<_> = ours.collect::<Result<_>>()?;
    let mut inside = GradStore::default();
    for variable in root.sorted_nodes().into_iter().filter(|node| node.is_variable()) {
        if let Some(grad) = grads.remove(variable) {
            inside.insert(variable, grad.detach());
        }
    }
    SINK.with_borrow_mut(|sink| sink.as_mut().expect("checked above").grads.extend(inside))?;
    Ok(ours)
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::gradcheck::pseudo_random;
    use crate::ops::linear;

    fn var(shape: &[usize], seed: u64) -> Var {
        Var::from_tensor(&pseudo_random(shape, seed).unwrap()).unwrap()
    }

    fn bits(grads: &GradStore, of: &Tensor) -> Vec<u64> {
        let grad = grads.get(of).expect("this trains, so it has a gradient");
        grad.flatten_all().unwrap().to_vec1::<f64>().unwrap().into_iter().map(f64::to_bits).collect()
    }

    fn layer(x: &Tensor, w: &Tensor) -> Result<Tensor> {
        x + x.matmul(w)?.tanh()?
    }

    #[test]
    fn gradients_are_those_of_the_plain_graph_bit_for_bit() {
        let weights: Vec<Var> = (0..4).map(|i| var(&[6, 6], i)).collect();
        let x = var(&[3, 6], 9);
        let plain = weights.iter().try_fold(x.as_tensor().clone(), |h, w| layer(&h, w)).unwrap();
        let blocks = weights.iter().try_fold(x.as_tensor().clone(), |h, w| {
            let w = w.clone();
            checkpoint(&[&h], move |x| layer(&x[0], &w))
        });
        let plain = plain.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        let blocks = backward(&blocks.unwrap().sqr().unwrap().sum_all().unwrap()).unwrap();
        for var in weights.iter().chain([&x]) {
            assert_eq!(bits(&plain, var), bits(&blocks, var));
        }
        let known: Vec<TensorId> = weights.iter().chain([&x]).map(|var| var.id()).collect();
        assert!(blocks.get_ids().all(|id| known.contains(id)), "nothing but the variables has a gradient");
    }

    #[test]
    fn blocks_nest_and_a_weight_may_be_used_inside_and_outside() {
        let (w, x) = (var(&[6, 6], 1), var(&[3, 6], 2));
        let shared = w.clone();
        let inner = move |x: &[Tensor]| layer(&x[0], &shared);
        let (shared, nested) = (w.clone(), inner.clone());
        let outer = move |x: &[Tensor]| {
            let h = checkpoint(&[&layer(&x[0], &shared)?], nested.clone())?;
            checkpoint(&[&h], nested.clone())
        };
        let loss = |h: Tensor| layer(&h, &w).unwrap().sqr().unwrap().sum_all().unwrap();
        let blocks = backward(&loss(checkpoint(&[&x], outer).unwrap())).unwrap();
        let plain = (0..3).try_fold(x.as_tensor().clone(), |h, _| layer(&h, &w)).unwrap();
        let plain = loss(plain).backward().unwrap();
        assert_eq!(bits(&plain, &x), bits(&blocks, &x));
        let difference = (plain.get(&w).unwrap() - blocks.get(&w).unwrap()).unwrap().abs().unwrap();
        assert!(difference.max_all().unwrap().to_scalar::<f64>().unwrap() < 1e-12, "sums in another order");
    }

    #[test]
    fn any_number_of_inputs_trains_and_an_input_may_have_other_uses() {
        for count in 1..8 {
            let inputs: Vec<Var> = (0..count).map(|i| var(&[2, 3], i)).collect();
            let inputs: Vec<&Tensor> = inputs.iter().map(|var| var.as_tensor()).collect();
            let frozen = pseudo_random(&[2, 3], 99).unwrap();
            let f = |x: &[Tensor]| x[1..].iter().try_fold(x[0].sin()?, |sum, x| sum * (x + 2.0)?);
            let all: Vec<&Tensor> = inputs.iter().copied().chain([&frozen]).collect();
            let owned: Vec<Tensor> = all.iter().map(|&x| x.clone()).collect();
            let loss = |out: Tensor| (out + inputs[0].sqr().unwrap()).unwrap().sum_all().unwrap();
            let plain = loss(f(&owned).unwrap()).backward().unwrap();
            let blocks = backward(&loss(checkpoint(&all, f).unwrap())).unwrap();
            for x in &inputs {
                assert_eq!(bits(&plain, x), bits(&blocks, x), "{count} inputs");
            }
            assert!(blocks.get(&frozen).is_none());
        }
    }

    #[test]
    fn variables_train_in_a_block_whose_input_does_not() {
        let (w, x) = (var(&[6, 6], 1), pseudo_random(&[3, 6], 2).unwrap());
        let inside = w.clone();
        let out = checkpoint(&[&x], move |x| layer(&x[0], &inside)).unwrap();
        let blocks = backward(&out.sum_all().unwrap()).unwrap();
        let plain = layer(&x, &w).unwrap().sum_all().unwrap().backward().unwrap();
        assert_eq!(bits(&plain, &w), bits(&blocks, &w));
        assert_eq!(blocks.get_ids().count(), 1);
    }

    #[test]
    fn what_does_not_train_is_no_part_of_the_graph() {
        let x = pseudo_random(&[3, 6], 2).unwrap();
        let out = checkpoint(&[&x], |x| x[0].sin()).unwrap();
        assert!(!trains(&out));
        let (a, b) = (var(&[2], 1), var(&[2], 2));
        let unused = checkpoint(&[&a, &b], |x| x[0].sin()).unwrap();
        let grads = backward(&unused.sum_all().unwrap()).unwrap();
        assert!(bits(&grads, &b).iter().all(|&bits| f64::from_bits(bits) == 0.0));
    }

    #[test]
    fn a_block_may_return_a_view() {
        let x = var(&[3, 6], 2);
        for f in [|x: &[Tensor]| x[0].sin()?.narrow(0, 1, 2), |x: &[Tensor]| x[0].sin()?.t()] {
            let (plain, block) = (f(&[x.as_tensor().clone()]).unwrap(), checkpoint(&[&x], f).unwrap());
            let difference = (&plain - &block).unwrap().abs().unwrap().max_all().unwrap();
            assert_eq!(difference.to_scalar::<f64>().unwrap(), 0.0);
            let loss = |out: Tensor| out.sqr().unwrap().sum_all().unwrap();
            assert_eq!(bits(&loss(plain).backward().unwrap(), &x), bits(&backward(&loss(block)).unwrap(), &x));
        }
    }

    #[test]
    fn without_the_sink_it_is_an_error_and_not_a_missing_gradient() {
        let w = var(&[6, 6], 1);
        let x = var(&[3, 6], 2);
        let out = checkpoint(&[&x], move |x| layer(&x[0], &w)).unwrap().sum_all().unwrap();
        let error = out.backward().unwrap_err().to_string();
        assert!(error.contains("checkpoint::backward"), "{error}");
        backward(&out).unwrap();
    }

    #[test]
    fn a_gradient_is_taken_once_and_whole() {
        let (w, shared, x) = (var(&[6, 6], 1), var(&[6, 6], 2), var(&[3, 6], 3));
        let loss = || {
            let (a, b) = (w.clone(), shared.clone());
            let h = checkpoint(&[&linear(&x, &shared, None)?], move |h| {
                linear(&linear(&h[0], &a, None)?, &b, None)?.tanh()
            })?;
            let b = shared.clone();
            checkpoint(&[&h], move |h| linear(&h[0], &b, None))?.sqr()?.sum_all()
        };
        let all = backward(&loss().unwrap()).unwrap();
        let taken = Rc::new(RefCell::new(Vec::new()));
        let list = taken.clone();
        let take = move |place, grad: Tensor| {
            let bits = grad.flatten_all()?.to_vec1::<f64>()?.into_iter().map(f64::to_bits).collect::<Vec<_>>();
            list.borrow_mut().push((place, bits));
            Ok(())
        };
        let places = HashMap::from([(w.id(), 0), (shared.id(), 1)]);
        let rest = backward_releasing(&loss().unwrap(), places, Box::new(take)).unwrap();
        // The shared weight's first use is the last that the backward pass comes to.
        assert_eq!(*taken.borrow(), [(0, bits(&all, &w)), (1, bits(&all, &shared))]);
        assert!(rest.get(&w).is_none() && rest.get(&shared).is_none());
        assert_eq!(bits(&rest, &x), bits(&all, &x));
    }

    #[test]
    fn a_gradient_that_comes_in_parts_is_not_released() {
        let (w, x) = (var(&[6, 6], 1), pseudo_random(&[3, 6], 2).unwrap());
        let loss = (linear(&x, &w, None).unwrap() + x.matmul(&w).unwrap()).unwrap().sum_all().unwrap();
        let places = HashMap::from([(w.id(), 0)]);
        let error = backward_releasing(&loss, places, Box::new(|_, _| Ok(()))).unwrap_err().to_string();
        assert!(error.contains("in parts"), "{error}");
    }

    #[test]
    fn a_deep_graph_is_walked_and_freed_on_the_big_stack() {
        let grad = on_big_stack(|| {
            let x = Var::zeros(1, candle_core::DType::F64, &candle_core::Device::Cpu).unwrap();
            let deep = (0..100_000).try_fold(x.as_tensor().clone(), |h, _| h + 1.0).unwrap();
            backward(&deep.sum_all().unwrap()).unwrap().get(&x).unwrap().to_vec1::<f64>().unwrap()
        });
        assert_eq!(grad, [1.0]);
    }
}
