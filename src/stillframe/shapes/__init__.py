"""ShapeEnv, SymNode, the Dim language, layouts."""
