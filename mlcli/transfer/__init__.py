"""Coming over and going back: runs read from other stores, and written to where others read them."""
