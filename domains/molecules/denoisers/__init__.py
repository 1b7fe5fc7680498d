"""The networks: an E(n)-GNN, an equivariant tensor-field network, and a plain transformer."""
