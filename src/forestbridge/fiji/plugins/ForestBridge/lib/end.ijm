// Ends a command: removes the folder of the call; shows what was made, or stops the macro that called with the message.
// Argument: the folder of this file, the folder of the call, whether batch mode was on before (1 or 0), and the last status line, each on a line.
words = split(getArgument(), "\n");
if (File.isDirectory(words[1])) {
    files = getFileList(words[1]);
    for (i = 0; i < files.length; i++)
        deleted = File.delete(words[1] + File.separator + files[i]);
    deleted = File.delete(words[1]);
    if (File.isDirectory(words[1])) { // hidden files are in it, which macros do not see: of a call that was cut off
        python = runMacro(words[0] + "python.ijm", words[0]);
        cleaned = exec(python, "-E", "-s", "-S", words[0] + "client.py", "clean", words[1]);
    }
}
if (startsWith(words[3], "status=ok")) {
    if (words[2] == "0")
        setBatchMode("exit and display");
} else {
    if (words[2] == "0")
        setBatchMode(false);
    // only an error with a title stops the macro that called the command
    call("ij.IJ.error", "ForestBridge", substring(words[3], indexOf(words[3], "message=") + 8));
}
