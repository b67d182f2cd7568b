// FB Configure: says in which Python forestbridge is installed, and checks it.
// run("FB Configure", "python=[/home/ada/forestbridge/.venv]");
//   python=  path of a Python, or of the folder of its environment
// Writes the versions into the Log window. ImageJ remembers the choice.
requires("1.53t");
var lib = libFolder();
var job = getDirectory("temp") + "forestbridge-" + d2s(getTime(), 0) + "-" + d2s(floor(random * 1e9), 0);
var wasBatch = is("Batch Mode");
headless = call("java.lang.System.getProperty", "java.awt.headless");
Dialog.create("FB Configure");
python = call("ij.Prefs.get", "forestbridge.python", "");
if (headless == "true")
    Dialog.addString("Python", python, 40);
else
    Dialog.addFile("Python", python);
Dialog.show();
python = Dialog.getString();
if (python == "")
    finish("status=error message=expected python= with the path of a Python or of its environment, found none");
if (!endsWith(python, File.separator))
    folder = python + File.separator;
else
    folder = python;
if (File.isDirectory(python)) {
    inside = newArray("bin/python", "Scripts/python.exe", "python.exe", "bin/python3");
    python = "";
    for (i = 0; i < inside.length; i++) {
        path = folder + replace(inside[i], "/", File.separator);
        if (python == "" && File.exists(path))
            python = path;
    }
    if (python == "")
        finish("status=error message=expected a Python in the folder " + folder + ", found none; give the folder that has bin or Scripts in it, or the Python itself");
}
reply = exec(python, "-E", "-s", "-S", lib + "client.py", "check");
if (!startsWith(reply, "status=")) {
    if (reply == "")
        reply = "no answer";
    reply = "status=error message=expected a Python, found at " + python + ": " + replace(reply, "\n", " ");
}
check(reply);
call("ij.Prefs.set", "forestbridge.python", python);
print("ForestBridge: forestbridge " + call("ij.Macro.getValue", reply, "version", "") + " in Python "
    + call("ij.Macro.getValue", reply, "python", "") + " at " + python);

function check(reply) {
    if (!startsWith(reply, "status=ok"))
        finish(reply);
    return reply;
}

function finish(reply) {
    runMacro(lib + "end.ijm", lib + "\n" + job + "\n" + d2s(wasBatch, 0) + "\n" + reply);
    exit;
}

function libFolder() {
    folder = getDirectory("plugins");
    if (folder == "") { // headless there are no menus, which know it
        folder = call("java.lang.System.getProperty", "plugins.dir", "");
        if (File.isDirectory(folder + File.separator + "plugins"))
            folder = folder + File.separator + "plugins";
        folder = folder + File.separator;
    }
    return folder + "ForestBridge" + File.separator + "lib" + File.separator;
}
