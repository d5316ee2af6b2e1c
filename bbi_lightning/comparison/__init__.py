"""From finished runs to a conclusion: statistics, verdict, pictures, page."""
