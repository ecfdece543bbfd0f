"""One pass over the data: accuracy with intervals, confusion, calibration, reports"""
