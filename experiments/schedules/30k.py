# 30,000 iterations from a trained FCOS (Figure 3), otherwise as 12 epochs.
base = "12e"
iterations = 30000
milestones = [20000, 25000]
