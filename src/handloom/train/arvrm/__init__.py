"""AR-VRM: pre-training on hand keypoints, then robot data beside retrieved human clips (arXiv 2508.07626; SPECS 2)."""
