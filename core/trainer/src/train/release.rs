//! Gradient release: each parameter is updated inside the backward pass, as soon as its gradient is whole, and the gradient
//! is freed, so that all of them are never in memory at once (Lv et al. 2023, "Full parameter fine-tuning for large
//! language models with limited resources", section 3.2).

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use candle_core::{Result, Tensor};
use sconce_nn::checkpoint::backward_releasing;

use super::gradients::square_sum;
use crate::optimizer::{At, OptimizerState, Trained};

/// An optimizer that the backward pass holds for a while.
pub type Shared = Rc<RefCell<Box<dyn OptimizerState>>>;

/// The backward pass of `loss`, with all updates. Gives the norm of the gradient.
pub fn update(loss: &Tensor, params: &[Trained], optimizer: &Shared, at: &At) -> Result<f64> {
    if !f64::from(loss.to_scalar::<f32>()?).is_finite() {
        return Ok(f64::NAN); // the caller says so, and nothing has moved
    }
    let squares = Rc::new(RefCell::new(vec![0.0; params.len()]));
    let places: HashMap<_, _> = params.iter().enumerate().map(|(i, p)| (p.var.id(), i)).collect();
    let take = {
        let (optimizer, squares, at) = (optimizer.clone(), squares.clone(), *at);
        Rc::new(move |i: usize, grad: &Tensor| {
            let square = square_sum(grad)?;
            squares.borrow_mut()[i] = square;
            // The norm tells the caller, who stops the run; weights that have moved since its checkpoint go with it.
            if square.is_finite() { optimizer.borrow_mut().update(i, grad, &at) } else { Ok(()) }
        })
    };
    let early = take.clone();
    let mut rest = backward_releasing(loss, places, Box::new(move |i, grad| early(i, &grad)))?;
    for (i, p) in params.iter().enumerate() {
        if let Some(grad) = rest.remove(&p.var) {
            take(i, &grad)?;
        }
    }
    Ok(squares.borrow().iter().sum::<f64>().sqrt())
}
