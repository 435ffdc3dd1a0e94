"""Map labels: from the map expansion's shapes to BEV masks."""
