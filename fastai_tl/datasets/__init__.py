"""The sample images, folders of images, and corruptions"""
