"""AR-VRM: pre-training on hand keypoints, then robot data with retrieved human clips (arXiv 2508.07626)."""
