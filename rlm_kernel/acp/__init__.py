"""An agent for editors: the Agent Client Protocol over stdin and stdout, translated into `AgentRLM`."""
