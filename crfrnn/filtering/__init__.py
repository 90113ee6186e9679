"""Section 4.2, message passing: the sum of a Gaussian kernel over all pairs of points, three ways."""
