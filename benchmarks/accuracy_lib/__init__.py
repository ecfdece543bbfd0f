"""What `accuracy.py` is made of: image sets, methods, report"""
