// Ends a command: removes the folder of the call; shows what was made, or stops the macro that called with the message.
// Argument: the folder, whether batch mode was on before (1 or 0), and the last status line, each on a line.
words = split(getArgument(), "\n");
if (File.isDirectory(words[0])) {
    files = getFileList(words[0]);
    for (i = 0; i < files.length; i++)
        deleted = File.delete(words[0] + File.separator + files[i]);
    deleted = File.delete(words[0]);
}
if (startsWith(words[2], "status=ok")) {
    if (words[1] == "0")
        setBatchMode("exit and display");
} else {
    if (words[1] == "0")
        setBatchMode(false);
    // only an error with a title stops the macro that called the command
    call("ij.IJ.error", "ForestBridge", substring(words[2], indexOf(words[2], "message=") + 8));
}
