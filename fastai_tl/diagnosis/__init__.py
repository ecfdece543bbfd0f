"""What would ruin a training run or its results, and the cure"""
