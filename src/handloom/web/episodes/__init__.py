"""Episodes of robots and of people's hands, and the reports of trainings: two parts of one page."""
