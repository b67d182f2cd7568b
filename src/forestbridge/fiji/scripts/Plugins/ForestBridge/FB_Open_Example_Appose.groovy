// FB Open Example, through a warm worker of Appose.
// run("FB Open Example Appose", "example=tissue");
#@ String (label="Example", choices={"tissue", "cells", "stack"}, persist=false, value="tissue") example

def root = new File(System.getProperty("plugins.dir", "."))
def plugins = ij.IJ.getDirectory("plugins") ?: new File(root, "plugins").isDirectory() ? new File(root, "plugins") : root // headless there are no menus
def file = new File(new File(plugins.toString()), "ForestBridge/lib/ForestBridge.groovy")
def key = "forestbridge.library:" + file.lastModified() // compiled once in the life of this Fiji
def library = System.getProperties().get(key)
if (library == null) {
    try {
        library = new GroovyClassLoader(getClass().getClassLoader()).parseClass(file).getDeclaredConstructor().newInstance()
    } catch (org.codehaus.groovy.control.CompilationFailedException | FileNotFoundException | NoClassDefFoundError e) {
        ij.IJ.log(e.toString())
        ij.IJ.error("ForestBridge", "expected Appose in this Fiji, and the commands installed by forestbridge fiji install, found neither or one; the macro command without Appose in its name needs no Appose")
        return
    }
    library.folder = file.getParentFile()
    System.getProperties().put(key, library)
}
library.example(example: example)
