// Returns the Python that forestbridge is installed in: what FB Configure was told, else what "forestbridge fiji install" wrote.
// Returns "status=error message=TEXT" if there is none. Argument: the folder of this file.
python = call("ij.Prefs.get", "forestbridge.python", "");
file = getArgument() + "python.txt";
if (python == "" && File.exists(file))
    python = replace(File.openAsString(file), "[\r\n]", "");
if (python == "")
    return "status=error message=expected to know the Python of forestbridge, found none; say where it is with Plugins > ForestBridge > FB Configure";
return python;
