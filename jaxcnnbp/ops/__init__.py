"""One file a rule: the algebra, the forward, the residuals, the gradients, and the wiring last."""
