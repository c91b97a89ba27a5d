# DeFCN's recipe as released: 270,000 iterations with images of several sizes.
base = "defcn_1x"
iterations = 270000
milestones = [210000, 250000]
