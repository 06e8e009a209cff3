"""The methods that choose, one file each."""
