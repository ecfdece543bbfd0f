"Tests in a real browser: JupyterLab, Notebook 7 and Voila in Chromium, with real clicks"
