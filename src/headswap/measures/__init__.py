"""What is measured of bodies without training them: speed against length, and how far gradients reach. Floor 5.

bodies (what is measured) -> speed, gradients (numbers) -> speed_report, gradient_report (sentences, figures) -> page
"""
