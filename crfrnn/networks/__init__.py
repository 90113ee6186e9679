"""Section 5.2: networks for the unary term, a CRF-RNN behind them, saved, shared and published weights."""
