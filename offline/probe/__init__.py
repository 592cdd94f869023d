"""What pretrained nets are worth: few labels, new people."""
