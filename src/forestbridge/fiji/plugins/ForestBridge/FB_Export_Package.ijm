// FB Export Package: a forest as a bioimage.io package (.zip) that runs in Python, Fiji, ilastik, deepImageJ and QuPath.
// run("FB Export Package", "forest=[nuclei.forest] package=[nuclei.zip] input=[a.tif] author=[Ada Lovelace]");
//   forest=   path of the forest (.forest), or of an ilastik project (.ilp)
//   package=  path of the package to write, NAME.zip
//   input=    title of an open image; a crop of it travels in the package as its test. A synthetic one by default
//   name=     name of the package; made from the file name by default
//   author=   names of the authors, with commas between
//   license=  SPDX identifier
//   overwrite replaces a package that is there
requires("1.53t");
var lib = libFolder();
var job = getDirectory("temp") + "forestbridge-" + d2s(getTime(), 0) + "-" + d2s(floor(random * 1e9), 0);
var wasBatch = is("Batch Mode");
headless = call("java.lang.System.getProperty", "java.awt.headless");
Dialog.create("FB Export Package");
if (headless == "true")
    Dialog.addString("Forest", "", 40);
else
    Dialog.addFile("Forest", "");
if (headless == "true")
    Dialog.addString("Package", "", 40);
else
    Dialog.addFile("Package", "");
Dialog.addString("Input", "", 20);
Dialog.addString("Name", "", 20);
Dialog.addString("Author", "", 20);
Dialog.addString("License", "CC-BY-4.0", 20);
Dialog.addCheckbox("Overwrite", false);
Dialog.show();
forest = Dialog.getString();
package = Dialog.getString();
input = Dialog.getString();
name = Dialog.getString();
author = Dialog.getString();
license = Dialog.getString();
overwrite = Dialog.getCheckbox();

if (!wasBatch)
    setBatchMode(true);
if (forest == "" || package == "")
    finish("status=error message=expected forest= (a file .forest or .ilp) and package= (the file .zip to write), found one of them empty");
words = job + "\npackage\nfused\n" + forest + "\n-o\n" + package + "\n--license\n" + license;
if (input != "") {
    lines = split(check(runMacro(lib + "save.ijm", input + "\n" + job)), "\n");
    words = words + "\n--image\n" + lines[2];
}
if (name != "")
    words = words + "\n--name\n" + name;
if (author != "")
    words = words + "\n--author\n" + replace(author, " *, *", "\n");
if (overwrite)
    words = words + "\n--overwrite";
check(runMacro(lib + "call.ijm", lib + "\n" + words));
print("ForestBridge: wrote " + package);
call("ij.Prefs.set", "forestbridge.model", package);
finish("status=ok");

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
