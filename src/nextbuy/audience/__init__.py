"""Who will buy a given thing: chances to buy it within some days, calibrated on what came."""
